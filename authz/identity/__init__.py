"""SVIDs: what a certificate is to be, signing it, validating it, who may have it, when to renew it."""
