"""The search for options that work: trials, the study, and what it writes."""
