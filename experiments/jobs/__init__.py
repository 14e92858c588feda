"""What every command needs to run for long: files, locks, progress, many processes."""
