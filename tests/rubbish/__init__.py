"""What nobody meant to give the program, and that it says so."""
