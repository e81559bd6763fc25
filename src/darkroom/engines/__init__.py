"""What answers predictions: a base class, its back ends, and the way from pictures to named answers."""
