"""What the commands beside it share: text, source models, recorded routing, tuned routers, folders."""
