"""What a user asks for: edit, control, compare; their options and inputs."""
