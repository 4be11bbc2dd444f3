"""The vault and the files of secret keys."""
