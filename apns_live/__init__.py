"""apns_live: a direct APNs engine for Live Activity pushes."""
