"""What training minimises: cross-entropy on references, or rewards of sampled captions."""
