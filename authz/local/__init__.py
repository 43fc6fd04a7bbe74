"""Plain processes on one machine: started, watched, asked, stopped; and what they decide, as lines for people."""
