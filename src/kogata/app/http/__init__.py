"""The web server: routes, what they accept, and who may call them. No arithmetic and no kernels."""
