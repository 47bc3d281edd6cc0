"""Tables on disk: directories of write-once Parquet parts."""
