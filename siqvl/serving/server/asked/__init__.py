"""What a request holds: its body, its parameters, its conversation and its pictures."""
