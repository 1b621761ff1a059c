"""What a report is made of: its numbers, its words, its pictures and its looks."""
