"""Plain processes of one machine: started, watched, asked, stopped; and what they decide, as lines for people."""
