"""Results of `verify` in the forms that CI systems read."""
