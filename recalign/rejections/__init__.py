"""Rejected items for RosePO: which next items make pairs, and what is rejected for them."""
