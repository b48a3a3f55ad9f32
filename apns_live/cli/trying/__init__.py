"""The page of ``apns-live gateway --with-fake``: each call, the pushes it became, and the phones."""
