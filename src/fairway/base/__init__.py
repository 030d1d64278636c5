"""The ground floor: errors, atomic files, logging, exact cover and typed values. Imports nothing of Fairway, no torch."""
