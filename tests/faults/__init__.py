"""The fault suite: a load with known answers, a fault, and an account of every job."""
