"""What commands show live in a terminal."""
