"""Records and what is made of them: tables and figures."""
