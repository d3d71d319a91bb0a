"""Example jobs that ship in the wheel."""
