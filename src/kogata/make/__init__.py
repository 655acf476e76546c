"""Make: small models, trained here. The only room that imports torch (the extra ``train``)."""
