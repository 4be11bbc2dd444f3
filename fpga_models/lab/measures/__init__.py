"""What evaluations measure with, on people nobody trained on."""
