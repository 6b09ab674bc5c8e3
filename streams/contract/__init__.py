"""What users see: the records, their JSON, and what becomes of those that cannot be used."""
