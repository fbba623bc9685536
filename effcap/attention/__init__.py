"""Where a captioner looked: a map over the photo for each word of a caption, and its pictures."""
