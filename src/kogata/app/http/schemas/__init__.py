"""What the API accepts and answers. Unknown fields are refused by name, so that a misspelt option is not ignored.

The OpenAPI document is made from these (openapi.py).
"""
