"""Fast paths, each beside the plain twin that defines it. A leaf: imports nothing of Fairway but the ground floor."""
