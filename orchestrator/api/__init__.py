"""The HTTP border: thin routes over the service functions that the command line uses too."""
