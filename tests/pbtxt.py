"""Reads protobuf text of Triton's `config.pbtxt`: dictionaries of lists."""

import re

TOKEN = re.compile(r'#[^\n]*|"[^"]*"|[{}\[\]:,]|[^\s{}\[\]:,"#]+')


def read_pbtxt(text):
    tokens = [token for token in TOKEN.findall(text) if not token.startswith("#")]
    message, rest = _message(tokens)
    assert not rest, rest
    return message


def _message(tokens):
    fields = {}
    while tokens and tokens[0] != "}":
        name, *tokens = tokens
        if tokens[0] == ":":
            tokens = tokens[1:]
        values, tokens = _values(tokens)
        fields.setdefault(name, []).extend(values)
    return fields, tokens[1:]


def _values(tokens):
    first, *tokens = tokens
    if first == "{":
        message, tokens = _message(tokens)
        return [message], tokens
    if first != "[":
        return [_scalar(first)], tokens
    values = []
    while tokens[0] != "]":
        if tokens[0] == ",":
            tokens = tokens[1:]
            continue
        some, tokens = _values(tokens)
        values += some
    return values, tokens[1:]


def _scalar(token):
    if token.startswith('"'):
        return token.strip('"')
    return int(token) if re.fullmatch(r"-?\d+", token) else token
