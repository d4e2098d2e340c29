"""Reports: tables for the terminal, figures and one self-contained page, from records alone."""
