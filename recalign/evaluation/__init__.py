"""What a policy is worth: rows, values per user, intervals and the result table of both methods.

`texts` is DPO4Rec's part, `next_items` RosePO's.
"""
