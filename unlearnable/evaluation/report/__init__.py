"""What an audit found, for people: in words, as a page, as Markdown."""
