"""What programs are told of a verb: one model an answer, whose schemas lie in
`docs/reference/schemas`.
"""
