"""The service's database: schema, migrations, connections."""
