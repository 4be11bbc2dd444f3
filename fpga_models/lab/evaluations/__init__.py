"""One module per evaluation: a report whose field names are its JSON keys, what it measures, and its picture sheet."""
