"""RealEstate10K-like raw folders: camera files, captions, videos; what belongs to which clip."""
