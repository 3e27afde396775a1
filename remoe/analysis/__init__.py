"""What routing did: records of it, and pure functions over them. numpy in, numpy out."""
