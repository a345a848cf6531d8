"""The storage account over HTTP: the port `Service`, made of requests by hand over aiohttp."""
