"""An evidence document → a page of plain text, for people who know no statistics."""
