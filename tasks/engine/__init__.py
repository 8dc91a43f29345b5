"""What makes a function a cached, resumable stage, and walks a flow through its stages."""
