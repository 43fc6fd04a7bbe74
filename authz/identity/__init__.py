"""X.509-SVIDs: what a certificate shall be, signing it, validating it, who may have it, when to renew it."""
