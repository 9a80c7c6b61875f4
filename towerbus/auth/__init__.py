"""Who a client is: the credentials it shows, and the `--auth` plugins that judge them."""
