"""DPO4Rec's evaluation: all targets of each user, ranked with what was written about the user."""
