"""Models at work beside a PACS and behind an API: client, rules, queues, DICOM node, server."""
