"""The one database that is the truth of the service: schema, migrations, connections."""
