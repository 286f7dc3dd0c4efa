"""The evaluation: its sets of references, the judge, the report and the page of pictures."""
