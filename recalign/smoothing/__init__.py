"""RosePO's smoothing: how probably a rejected item is really the preferred one."""
