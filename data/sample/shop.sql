-- A small shop with made-up rows, for docs/databases.md.
CREATE TABLE customers (
    customer_id INTEGER PRIMARY KEY,
    email TEXT NOT NULL,
    city TEXT,
    updated_at TIMESTAMP NOT NULL
);
CREATE TABLE orders (
    order_id INTEGER PRIMARY KEY,
    customer_id INTEGER NOT NULL REFERENCES customers (customer_id),
    ordered_on DATE NOT NULL,
    status TEXT NOT NULL,
    updated_at TIMESTAMP NOT NULL
);
CREATE INDEX orders_updated_at ON orders (updated_at);
CREATE TABLE order_lines (
    order_id INTEGER NOT NULL REFERENCES orders (order_id),
    line INTEGER NOT NULL,
    article TEXT NOT NULL,
    quantity INTEGER NOT NULL,
    price DECIMAL(10, 2) NOT NULL,
    PRIMARY KEY (order_id, line)
);

INSERT INTO customers VALUES
    (1, 'ada@example.com', 'Bern', '2025-03-10 08:00:00'),
    (2, 'ben@example.com', 'Genoa', '2025-03-10 09:30:00'),
    (3, 'cleo@example.com', NULL, '2025-03-11 11:15:00');
INSERT INTO orders VALUES
    (1, 1, '2025-03-10', 'sent', '2025-03-11 07:00:00'),
    (2, 2, '2025-03-10', 'sent', '2025-03-11 07:05:00'),
    (3, 1, '2025-03-11', 'paid', '2025-03-11 12:00:00'),
    (4, 3, '2025-03-12', 'new', '2025-03-12 10:20:00');
INSERT INTO order_lines VALUES
    (1, 1, 'tea', 2, 4.50),
    (1, 2, 'cup', 1, 12.00),
    (2, 1, 'tea', 1, 4.50),
    (3, 1, 'kettle', 1, 39.90),
    (4, 1, 'cup', 6, 11.50),
    (4, 2, 'tea', 3, 4.25);
