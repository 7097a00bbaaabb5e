"""Complete settings by name: for embedded and own data, and for published data sets; `commandline` reads them."""
