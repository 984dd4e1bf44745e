"""Object stores and web servers, whatever fsspec can reach, by URL. fsspec is imported on first use."""
