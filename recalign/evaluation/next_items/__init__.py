"""RosePO's evaluation: one next item at a time, ranked and asked for."""
